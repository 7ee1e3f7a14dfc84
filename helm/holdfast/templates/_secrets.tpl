{{/* What is inline, and the URLs of the servers that this chart has started. */}}
{{- define "holdfast.inlineSecrets" -}}
{{- $name := include "holdfast.fullname" . -}}
{{- $all := deepCopy .Values.secrets.inline -}}
{{- if .Values.devServers.enabled -}}
{{- $_ := set $all .Values.secrets.keys.primaryUrl (printf "postgres://holdfast:holdfast@%s-postgres:5432/holdfast" $name) -}}
{{- $_ := set $all .Values.secrets.keys.redisUrl (printf "redis://%s-redis:6379" $name) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* The Secret that the operator makes for a role: (list $ "serve" "suffix"). */}}
{{- define "holdfast.externalSecret" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- with $root.Values.secrets.externalSecret }}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata:
  {{- include "holdfast.metadata" (list $root (index $ 2) $role) | nindent 2 }}
  {{- if eq $role "migrate" }}
  annotations:
    {{- include "holdfast.hook" "-10" | nindent 4 }}
  {{- end }}
spec:
  refreshInterval: {{ .refreshInterval }}
  secretStoreRef: {name: {{ .storeName }}, kind: {{ .storeKind }}}
  target:
    name: {{ include "holdfast.fullname" $root }}-{{ index $ 2 }}
    creationPolicy: Owner
  data:
    {{- $keys := include "holdfast.secretKeys" (list $root $role) | fromJson | values }}
    {{- if and (eq $role "serve") $root.Values.pgbouncer.enabled }}
    {{- $keys = append $keys $root.Values.pgbouncer.userlistKey }}
    {{- end }}
    {{- range $keys | uniq | sortAlpha }}
    - secretKey: {{ . }}
      remoteRef: {key: {{ $root.Values.secrets.externalSecret.remoteKey }}, property: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* Before the release's own objects, and gone when all went well. What failed stays for its log, and the next try removes it. */}}
{{- define "holdfast.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
