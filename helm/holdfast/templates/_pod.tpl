{{/* What every pod has in common with the restricted standard: no token, no root. */}}
{{- define "holdfast.podSecurity" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  # Mounted secrets belong to this group, and are nobody else's to read.
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "holdfast.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where the image comes from, and where pods may run; the same for all pods with the service's image. */}}
{{- define "holdfast.placement" -}}
serviceAccountName: {{ include "holdfast.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .root.Values.pod }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* How a role is told its settings: (list $ "serve"). */}}
{{- define "holdfast.env" -}}
{{- $root := index . 0 -}}
- name: HOLDFAST_PROFILE
  value: {{ $root.Values.profile }}
- name: HOLDFAST_CONFIG_FILE
  value: /etc/holdfast/config/settings.toml
{{- range $setting, $key := include "holdfast.secretKeys" . | fromJson }}
- name: HOLDFAST__{{ $setting | upper | replace "." "__" }}_FILE
  value: /etc/holdfast/secrets/{{ $key }}
{{- end }}
{{- if not $root.Values.redis.enabled }}
# Nothing listens there, so that it is away at once. In prod the setting may not be left out.
- name: HOLDFAST__REDIS__URL
  value: redis://127.0.0.1:1
{{- end }}
{{- end }}

{{- define "holdfast.mounts" -}}
- {name: config, mountPath: /etc/holdfast/config, readOnly: true}
- {name: secrets, mountPath: /etc/holdfast/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* (list $ "serve" "name of the ConfigMap" "name of the Secret"). Only those keys are mounted that the role has use for. */}}
{{- define "holdfast.volumes" -}}
- name: config
  configMap: {name: {{ index . 2 }}}
- name: secrets
  secret:
    secretName: {{ index . 3 }}
    defaultMode: 0440
    items:
      {{- range include "holdfast.secretKeys" . | fromJson | values | uniq | sortAlpha }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 16Mi}
{{- end }}

{{- define "holdfast.probes" -}}
startupProbe:
  httpGet: {path: /startup, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /health, port: admin}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /ready, port: admin}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{/* The pod template of a role, for a Deployment or a Rollout: (list $ "serve"). */}}
{{- define "holdfast.podTemplate" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $name := printf "%s-%s" (include "holdfast.fullname" $root) $role -}}
metadata:
  annotations:
    # The service reads its settings when it starts, and never again: a change of any of them is a rollout.
    checksum/config: {{ include "holdfast.settings" . | sha256sum }}
    {{- with $root.Values.secrets.inline }}
    checksum/secrets: {{ toJson . | sha256sum }}
    {{- end }}
    {{- with $root.Values.pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "holdfast.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $role }}
    holdfast/scraped: "true"
    {{- with $root.Values.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "holdfast.podSecurity" $root | nindent 2 }}
  {{- include "holdfast.placement" (dict "root" $root) | nindent 2 }}
  terminationGracePeriodSeconds: {{ int $root.Values.shutdown.graceSeconds }}
  {{- with $root.Values.pod.affinity }}
  affinity: {{ toJson . }}
  {{- end }}
  {{- if $root.Values.pod.spread }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      # So that a rollout is spread too, and not only together with what it replaces.
      matchLabelKeys: [{{ $root.Values.canary.enabled | and (eq $role "serve") | ternary "rollouts-pod-template-hash" "pod-template-hash" }}]
      labelSelector:
        matchLabels:
          {{- include "holdfast.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $role }}
    {{- end }}
  {{- end }}
  {{- if $root.Values.devServers.enabled }}
  {{- include "holdfast.devInit" . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ $role }}
      image: {{ include "holdfast.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ $role }}]
      {{- include "holdfast.containerSecurity" $root | nindent 6 }}
      env:
        {{- include "holdfast.env" . | nindent 8 }}
        - name: TOKIO_WORKER_THREADS
          valueFrom:
            resourceFieldRef: {resource: requests.cpu, divisor: "1"}
        {{- with $root.Values.pod.extraEnv }}
        {{- tpl (toYaml .) $root | nindent 8 }}
        {{- end }}
      ports:
        {{- if eq $role "serve" }}
        - {name: http, containerPort: {{ int $root.Values.ports.http }}}
        - {name: grpc, containerPort: {{ int $root.Values.ports.grpc }}}
        {{- end }}
        - {name: admin, containerPort: {{ int $root.Values.ports.admin }}}
      {{- include "holdfast.probes" $root | nindent 6 }}
      {{- with int $root.Values.shutdown.preStopSeconds }}
      lifecycle:
        # The image has no shell; the kubelet itself waits.
        preStop: {sleep: {seconds: {{ . }}}}
      {{- end }}
      resources: {{ toJson (get $root.Values $role).resources }}
      volumeMounts:
        {{- include "holdfast.mounts" $root | nindent 8 }}
        {{- with $root.Values.pod.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $root.Values.pod.extraContainers }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "holdfast.volumes" (list $root $role $name (include "holdfast.secretName" $root)) | nindent 4 }}
    {{- with $root.Values.pod.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
