{{- define "holdfast.scaleTarget" -}}
{{- $isRollout := and (index . 0).Values.canary.enabled (eq (index . 1) "serve") -}}
apiVersion: {{ $isRollout | ternary "argoproj.io/v1alpha1" "apps/v1" }}
kind: {{ $isRollout | ternary "Rollout" "Deployment" }}
name: {{ include "holdfast.fullname" (index . 0) }}-{{ index . 1 }}
{{- end }}

{{/* Up at once, down slowly: a pod too many costs money, one too few costs requests. */}}
{{- define "holdfast.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 100, periodSeconds: 15}
    - {type: Pods, value: 4, periodSeconds: 15}
scaleDown:
  stabilizationWindowSeconds: 300
  selectPolicy: Min
  policies:
    - {type: Percent, value: 25, periodSeconds: 60}
{{- end }}
