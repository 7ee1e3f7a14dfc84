{{/* Each pod brings the schema of the throwaway Postgres up to date itself, and serve's fill the catalogue: (list $ "serve"). */}}
{{- define "holdfast.devInit" -}}
{{- $root := index . 0 -}}
{{- $steps := dict "a-migrate" (list "migrate") -}}
{{- with and (eq (index . 1) "serve") (int $root.Values.devServers.seedProducts) -}}
{{- $_ := set $steps "b-seed" (list "seed" "--products" (toString .) "--dev-accounts") -}}
{{- end -}}
initContainers:
  {{- range $step, $args := $steps }}
  - name: {{ $step }}
    image: {{ include "holdfast.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{ toJson $args }}
    {{- include "holdfast.containerSecurity" $root | nindent 4 }}
    env:
      {{- include "holdfast.env" $ | nindent 6 }}
    resources: {{ toJson $root.Values.migration.resources }}
    volumeMounts:
      {{- include "holdfast.mounts" $root | nindent 6 }}
  {{- end }}
{{- end }}
