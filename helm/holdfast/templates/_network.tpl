{{/* One rule of egress: (dict "to" peers "port" number). Without peers it is any that has the port. */}}
{{- define "holdfast.egress" -}}
- ports:
    - {protocol: TCP, port: {{ int .port }}}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "holdfast.dnsEgress" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "holdfast.postgresEgress" -}}
{{- include "holdfast.egress" (dict "to" .Values.networkPolicy.postgres "port" .Values.networkPolicy.postgresPort) }}
{{- if .Values.pgbouncer.enabled }}
- ports:
    - {port: postgres}
  to:
    - podSelector:
        matchLabels:
          {{- include "holdfast.selector" . | nindent 10 }}
          app.kubernetes.io/component: pgbouncer
{{- end }}
{{- end }}

{{- define "holdfast.otlpPort" -}}
{{ (urlParse .Values.telemetry.otlpEndpoint).host | splitList ":" | last }}
{{- end }}
