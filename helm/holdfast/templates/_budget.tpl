{{/* A number of pods or a share of `of` pods, rounded up as Kubernetes does. */}}
{{- define "holdfast.share" -}}
{{- $share := toString .share -}}
{{- if hasSuffix "%" $share -}}
{{- ceil (divf (mulf (trimSuffix "%" $share | float64) .of) 100) | int -}}
{{- else -}}
{{- int $share -}}
{{- end -}}
{{- end }}

{{/* Pods of a role, as JSON {min, max}: (list $ "serve"). */}}
{{- define "holdfast.pods" -}}
{{- $role := get (index . 0).Values (index . 1) -}}
{{- $scaler := dict -}}
{{- range list $role.hpa $role.keda }}{{ if and . .enabled }}{{ $scaler = . }}{{ end }}{{ end -}}
{{- $min := int (get $scaler "minReplicas" | default $role.replicas) -}}
{{- $max := int (get $scaler "maxReplicas" | default $role.replicas) -}}
{{- dict "min" $min "max" $max "scaled" (gt (len $scaler) 0) | toJson -}}
{{- end }}

{{/* How `postgres.maxConnections` is divided, as JSON. The sum is in values.yaml, and helm/README.md says where each part comes from. */}}
{{- define "holdfast.budget" -}}
{{- $surge := .Values.rollout.maxSurge -}}
{{- $serveMax := (include "holdfast.pods" (list . "serve") | fromJson).max | int -}}
{{- $servePods := add $serveMax (mul 2 (include "holdfast.share" (dict "share" $surge "of" $serveMax) | int)) -}}
{{- $workPods := 0 -}}
{{- $besides := 4 -}}
{{- if .Values.work.enabled -}}
{{- $workMax := (include "holdfast.pods" (list . "work") | fromJson).max | int -}}
{{- $workPods = add $workMax (mul 2 (include "holdfast.share" (dict "share" $surge "of" $workMax) | int)) -}}
{{- $besides = 2 -}}
{{- end -}}
{{- $workPool := add .Values.work.concurrency 2 -}}
{{- $work := mul $workPods (add $workPool 4) -}}
{{- $left := sub (int .Values.postgres.maxConnections) (add .Values.postgres.reservedConnections $work (mul $servePods $besides)) -}}
{{- $each := div $left (max 1 $servePods) -}}
{{- $pool := min $each (int .Values.postgres.poolMax) -}}
{{- $used := add $work (mul $servePods (add $pool $besides)) -}}
{{- dict "servePods" $servePods "workPods" $workPods "servePool" $pool "workPool" $workPool "used" $used | toJson -}}
{{- end }}
