{{- define "holdfast.pgbouncerIni" -}}
[databases]
{{- range $name, $where := .Values.pgbouncer.databases }}
{{ $name }} = {{ $where }}
{{- end }}

[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 5432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/secrets/userlist.txt
pool_mode = transaction
; Each statement is prepared once under a name, which the pooler must pass on.
max_prepared_statements = 256
default_pool_size = {{ int .Values.pgbouncer.poolSize }}
; All of them may come to one pod.
max_client_conn = {{ int .Values.postgres.maxConnections }}
; Whoever waits for longer has given up by then.
query_wait_timeout = 5
server_tls_sslmode = prefer
{{- end }}
