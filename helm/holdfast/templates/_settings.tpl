{{/* A map as TOML: (dict "path" "" "table" map). Values of a table come before the tables in it. */}}
{{- define "holdfast.toml" -}}
{{- $path := .path -}}
{{- $own := dict -}}
{{- range $key, $value := .table }}{{ if not (kindIs "map" $value) }}{{ $_ := set $own $key $value }}{{ end }}{{ end -}}
{{- if and $path $own }}
[{{ $path }}]
{{- end }}
{{- range $key, $value := $own }}
{{- if not (kindIs "invalid" $value) }}
{{ include "holdfast.tomlKey" $key }} = {{ include "holdfast.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := include "holdfast.tomlKey" $key }}
{{- include "holdfast.toml" (dict "path" (printf "%s.%s" $path $name | trimPrefix ".") "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.tomlKey" -}}
{{ regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toJson .) }}
{{- end }}

{{/* Helm reads whole numbers as floats, which a setting that counts would refuse. */}}
{{- define "holdfast.tomlValue" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}
{{- else }}{{ toJson . }}
{{- end }}
{{- end }}

{{/* The dotted names of all leaves of a map, a line each: (dict "path" "" "table" map). */}}
{{- define "holdfast.leaves" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- $name := printf "%s.%s" $path $key | trimPrefix "." }}
{{- if kindIs "map" $value }}
{{- include "holdfast.leaves" (dict "path" $name "table" $value) }}
{{- else }}
{{ $name }}
{{- end }}
{{- end }}
{{- end }}

{{/* The settings that values of this chart stand for: (list $ "serve"). */}}
{{- define "holdfast.owned" -}}
{{- $root := index . 0 }}
{{- $role := index . 1 }}
{{- $budget := include "holdfast.budget" $root | fromJson }}
{{- $pool := eq $role "work" | ternary $budget.workPool $budget.servePool | int }}
{{- with $root.Values -}}
http:
  listen: 0.0.0.0:{{ int .ports.http }}
  read_deadline: {{ int .timeouts.readMs }}ms
  write_deadline: {{ int .timeouts.writeMs }}ms
  balancer_idle: {{ int .balancer.idleSeconds }}s
  idle_timeout: {{ add .balancer.idleSeconds 15 }}s
  trusted_hops: {{ int .balancer.trustedHops }}
  forwarded_by: {{ .balancer.forwardedBy }}
  log_success_ratio: {{ .telemetry.logSuccessRatio }}
grpc:
  listen: 0.0.0.0:{{ int .ports.grpc }}
admin:
  listen: 0.0.0.0:{{ int .ports.admin }}
  required: {{ toJson .admin.required }}
limits:
  instances_expected: {{ (include "holdfast.pods" (list $root "serve") | fromJson).max }}
shutdown:
  pre_stop: {{ int .shutdown.preStopSeconds }}s
  lame_duck: {{ int .shutdown.lameDuckSeconds }}s
  drain_timeout: {{ int .shutdown.drainSeconds }}s
  grace: {{ int .shutdown.graceSeconds }}s
postgres:
  pooled: {{ .postgres.pooled }}
  primary_connections_max: {{ $pool }}
  replica_connections_max: {{ $pool }}
  # A dead replica leaves the primary room to write.
  fallback_reads_max: {{ max 1 (div (mul $pool 3) 4) }}
  fallback_expendable_max: {{ max 1 (div $pool 2) }}
  acquire_timeout: {{ int .timeouts.acquireMs }}ms
  connect_timeout: {{ int .timeouts.connectMs }}ms
  replica_timeout: {{ int .timeouts.replicaMs }}ms
  statement_timeout: {{ int .timeouts.statementMs }}ms
jobs:
  run_in_serve: {{ not .work.enabled }}
  concurrency: {{ int .work.concurrency }}
  expendable_max: {{ max 1 (div (mul .work.concurrency 3) 4) }}
  stop_timeout: {{ int .shutdown.jobsSeconds }}s
events:
  flush_timeout: {{ int .shutdown.eventsFlushSeconds }}s
telemetry:
  log_filter: {{ quote .telemetry.logFilter }}
  {{- with .telemetry.otlpEndpoint }}
  otlp_endpoint: {{ quote . }}
  {{- end }}
  sample_ratio: {{ .telemetry.sampleRatio }}
  flush_timeout: {{ int .shutdown.flushSeconds }}s
{{- end }}
{{- end }}

{{/* The settings file of a role: (list $ "serve"). */}}
{{- define "holdfast.settings" -}}
{{- $owned := include "holdfast.owned" . | fromYaml -}}
{{- $table := merge $owned (deepCopy (index . 0).Values.settings) -}}
{{ include "holdfast.toml" (dict "path" "" "table" $table) | trim }}
{{- end }}

{{/* Which setting is in which key of the Secret, as JSON: (list $ "serve"). What migrates has the URL of a role that may. */}}
{{- define "holdfast.secretKeys" -}}
{{- $root := index . 0 -}}
{{- $migrates := eq (index . 1) "migrate" -}}
{{- $secrets := $root.Values.secrets -}}
{{- $keys := $secrets.keys -}}
{{- $found := dict "postgres.primary_url" $keys.primaryUrl "postgres.direct_url" $keys.directUrl -}}
{{- if $root.Values.redis.enabled }}{{ $_ := set $found "redis.url" $keys.redisUrl }}{{ end -}}
{{- if $migrates -}}
{{- $_ := set $found "postgres.direct_url" ($keys.migrationUrl | default $keys.directUrl) -}}
{{- else -}}
{{- $_ := set $found "postgres.replica_urls" $keys.replicaUrls -}}
{{- $_ := set $found "postgres.token_keys" $keys.tokenKeys -}}
{{- $_ := set $found "admin.token" $keys.adminToken -}}
{{- $_ := set $found "http.caller_keys" $keys.callerKeys -}}
{{- end -}}
{{- range $setting, $key := $secrets.extra -}}
{{- if or (not $migrates) (hasPrefix "shards." $setting) }}{{ $_ := set $found $setting $key }}{{ end -}}
{{- end -}}
{{- range $setting, $key := $found }}{{ if not $key }}{{ $_ := unset $found $setting }}{{ end }}{{ end -}}
{{- if not (or $secrets.existingSecret $secrets.externalSecret.enabled) -}}
{{- /* A pod that mounts a key which its Secret lacks does not start, and in dev the service knows what to do without most. */ -}}
{{- $inline := include "holdfast.inlineSecrets" $root | fromYaml -}}
{{- range $setting, $key := $found }}{{ if not (hasKey $inline $key) }}{{ $_ := unset $found $setting }}{{ end }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}
