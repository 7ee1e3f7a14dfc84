{{/* Stops the render with what is wrong and the values to change. */}}
{{- define "holdfast.refuse" -}}
{{- fail (printf "holdfast: %s" .) -}}
{{- end }}

{{/* Each rung, as (list "value's name" number), must be smaller than the next. */}}
{{- define "holdfast.ladder" -}}
{{- $below := list -}}
{{- range $rung := . -}}
{{- if $below -}}
{{- if ge (int (index $below 1)) (int (index $rung 1)) -}}
{{- include "holdfast.refuse" (printf "%s (%dms) must be less than %s (%dms)" (index $below 0) (int (index $below 1)) (index $rung 0) (int (index $rung 1))) -}}
{{- end -}}
{{- end -}}
{{- $below = $rung -}}
{{- end -}}
{{- end }}

{{- define "holdfast.guardWaits" -}}
{{- $t := .Values.timeouts -}}
{{- $s := .Values.shutdown -}}
{{- $drain := list "shutdown.drainSeconds" (mul $s.drainSeconds 1000) -}}
{{- $statement := list "timeouts.statementMs" $t.statementMs -}}
{{- include "holdfast.ladder" (list (list "timeouts.acquireMs" $t.acquireMs) (list "timeouts.connectMs" $t.connectMs) $statement) -}}
{{- include "holdfast.ladder" (list (list "timeouts.replicaMs" $t.replicaMs) $statement (list "timeouts.readMs" $t.readMs) (list "timeouts.writeMs" $t.writeMs) $drain) -}}
{{- $longest := max (add $s.lameDuckSeconds $s.drainSeconds) (int $s.jobsSeconds) -}}
{{- $needed := add $s.preStopSeconds $longest $s.eventsFlushSeconds $s.flushSeconds $s.slackSeconds -}}
{{- if lt (int $s.graceSeconds) (int $needed) -}}
{{- include "holdfast.refuse" (printf "shutdown.graceSeconds (%d) must be %d or more: preStopSeconds + max(lameDuckSeconds + drainSeconds, jobsSeconds) + eventsFlushSeconds + flushSeconds + slackSeconds" (int $s.graceSeconds) $needed) -}}
{{- end -}}
{{- if gt 10 (int (add $s.preStopSeconds $s.lameDuckSeconds)) -}}
{{- include "holdfast.refuse" "shutdown.preStopSeconds + lameDuckSeconds must be 10 or more: so long a pod that ends can still be taken for ready, which the readiness probe asks twice, every 5 s" -}}
{{- end -}}
{{- if lt (int .Values.rollout.minReadySeconds) (int (max 5 (add $s.preStopSeconds $s.lameDuckSeconds))) -}}
{{- include "holdfast.refuse" (printf "rollout.minReadySeconds (%d) must be %d or more: the period of the readiness probe, and shutdown.preStopSeconds + lameDuckSeconds" (int .Values.rollout.minReadySeconds) (max 5 (add $s.preStopSeconds $s.lameDuckSeconds))) -}}
{{- end -}}
{{- end }}

{{- define "holdfast.guardScaling" -}}
{{- range $role := list "serve" "work" -}}
{{- range $kind, $scaler := pick (get $.Values $role) "hpa" "keda" -}}
{{- if and $scaler.enabled (lt (int $scaler.maxReplicas) (int $scaler.minReplicas)) -}}
{{- include "holdfast.refuse" (printf "%s.%s.maxReplicas (%d) must not be less than minReplicas (%d)" $role $kind (int $scaler.maxReplicas) (int $scaler.minReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if has (toString (get $.Values $role).pdb.maxUnavailable) (list "0" "0%") -}}
{{- include "holdfast.refuse" (printf "%s.pdb.maxUnavailable must not be 0: no node could be drained" $role) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.work.hpa.enabled .Values.work.keda.enabled -}}
{{- include "holdfast.refuse" "work.hpa.enabled and work.keda.enabled: only one of them may count the pods" -}}
{{- end -}}
{{- with .Values.serve.hpa -}}
{{- if and .enabled (not (or .cpuPercent .memoryPercent .requestsPerSecond .saturationPercent)) -}}
{{- include "holdfast.refuse" "serve.hpa.enabled: one of cpuPercent, memoryPercent, requestsPerSecond and saturationPercent must be set" -}}
{{- end -}}
{{- end -}}
{{- with .Values.work.keda -}}
{{- if and .enabled (gt (int .fallbackReplicas) (int .maxReplicas)) -}}
{{- include "holdfast.refuse" (printf "work.keda.fallbackReplicas (%d) must not be more than maxReplicas (%d): connections are divided among so many" (int .fallbackReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "holdfast.guardBudget" -}}
{{- $budget := include "holdfast.budget" . | fromJson -}}
{{- $pool := int $budget.servePool -}}
{{- if lt $pool (int .Values.postgres.poolMin) -}}
{{- include "holdfast.refuse" (printf "postgres.maxConnections (%d) leaves each of %d serve pods a pool of %d, less than postgres.poolMin (%d): raise it, or lower serve's or work's maximum of pods, work.concurrency or rollout.maxSurge" (int .Values.postgres.maxConnections) (int $budget.servePods) $pool (int .Values.postgres.poolMin)) -}}
{{- end -}}
{{- if gt (int .Values.postgres.poolMin) (int .Values.postgres.poolMax) -}}
{{- include "holdfast.refuse" (printf "postgres.poolMin (%d) must not be more than postgres.poolMax (%d)" (int .Values.postgres.poolMin) (int .Values.postgres.poolMax)) -}}
{{- end -}}
{{- end }}

{{- define "holdfast.guardSecrets" -}}
{{- $s := .Values.secrets -}}
{{- $sources := list -}}
{{- if $s.existingSecret }}{{ $sources = append $sources "secrets.existingSecret" }}{{ end -}}
{{- if $s.externalSecret.enabled }}{{ $sources = append $sources "secrets.externalSecret.enabled" }}{{ end -}}
{{- if $s.inline }}{{ $sources = append $sources "secrets.inline" }}{{ end -}}
{{- if .Values.devServers.enabled }}{{ $sources = append (without $sources "secrets.inline") "devServers.enabled" }}{{ end -}}
{{- if gt (len $sources) 1 -}}
{{- include "holdfast.refuse" (printf "%s: secrets come from one place only" (join " and " $sources)) -}}
{{- end -}}
{{- if not $sources -}}
{{- include "holdfast.refuse" "secrets.existingSecret must name the Secret that holds the URL of Postgres (or set secrets.externalSecret, or devServers.enabled with profile: dev)" -}}
{{- end -}}
{{- if and (ne .Values.profile "dev") (or $s.inline .Values.devServers.enabled) -}}
{{- include "holdfast.refuse" "secrets.inline and devServers.enabled need profile: dev" -}}
{{- end -}}
{{- if $s.inline -}}
{{- $needed := list $s.keys.primaryUrl -}}
{{- if .Values.redis.enabled }}{{ $needed = append $needed $s.keys.redisUrl }}{{ end -}}
{{- if .Values.pgbouncer.enabled }}{{ $needed = append $needed .Values.pgbouncer.userlistKey }}{{ end -}}
{{- range $key := $needed -}}
{{- if not (hasKey (include "holdfast.inlineSecrets" $ | fromYaml) $key) -}}
{{- include "holdfast.refuse" (printf "secrets.inline.%s must be set" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $s.externalSecret.enabled (not $s.externalSecret.storeName) -}}
{{- include "holdfast.refuse" "secrets.externalSecret.storeName must be set" -}}
{{- end -}}
{{- if and .Values.postgres.pooled (not $s.keys.directUrl) -}}
{{- include "holdfast.refuse" "secrets.keys.directUrl must be set with postgres.pooled: migrations need a session of their own" -}}
{{- end -}}
{{- if and .Values.pgbouncer.enabled (not .Values.postgres.pooled) -}}
{{- include "holdfast.refuse" "pgbouncer.enabled needs postgres.pooled: the service must know that it has no session of its own" -}}
{{- end -}}
{{- if and .Values.pgbouncer.enabled (not .Values.pgbouncer.databases) -}}
{{- include "holdfast.refuse" "pgbouncer.databases must be set with pgbouncer.enabled" -}}
{{- end -}}
{{- if and $s.keys.replicaUrls (not $s.keys.tokenKeys) -}}
{{- include "holdfast.refuse" "secrets.keys.tokenKeys must be set with secrets.keys.replicaUrls: else a client does not see what it wrote" -}}
{{- end -}}
{{- end }}

{{- define "holdfast.guardSettings" -}}
{{- $owned := include "holdfast.leaves" (dict "path" "" "table" (include "holdfast.owned" (list . "serve") | fromYaml)) | trim | splitList "\n" -}}
{{- $owned = concat $owned (list "telemetry.otlp_endpoint" "redis.url") (include "holdfast.secretSettings" . | splitList " ") -}}
{{- range $leaf := include "holdfast.leaves" (dict "path" "" "table" .Values.settings) | trim | splitList "\n" -}}
{{- if has $leaf $owned -}}
{{- include "holdfast.refuse" (printf "settings.%s has a value of its own in this chart, or is a secret: see values.yaml" $leaf) -}}
{{- end -}}
{{- if regexMatch "(^|\\.)(token|caller_key|home_admin_url|(primary|replica|direct|admin)_urls?)$" $leaf -}}
{{- include "holdfast.refuse" (printf "settings.%s is a secret: name its key in secrets.extra" $leaf) -}}
{{- end -}}
{{- end -}}
{{- range $setting, $_ := .Values.secrets.extra -}}
{{- if has $setting (splitList " " (include "holdfast.secretSettings" $)) -}}
{{- include "holdfast.refuse" (printf "secrets.extra.%s has a key of its own in secrets.keys" $setting) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "holdfast.secretSettings" -}}
postgres.primary_url postgres.replica_urls postgres.direct_url postgres.token_keys redis.url admin.token http.caller_keys
{{- end }}

{{- define "holdfast.guardRoutes" -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- include "holdfast.refuse" "ingress.host must be set with ingress.enabled" -}}
{{- end -}}
{{- range $kind := list "httpRoute" "grpcRoute" -}}
{{- with get $.Values $kind -}}
{{- if and .enabled (not .hostnames) -}}
{{- include "holdfast.refuse" (printf "%s.hostnames must be set with %s.enabled" $kind $kind) -}}
{{- end -}}
{{- if and .enabled (not .parentRefs) -}}
{{- include "holdfast.refuse" (printf "%s.parentRefs must be set with %s.enabled" $kind $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.httpRoute.enabled -}}
{{- include "holdfast.refuse" "ingress.enabled and httpRoute.enabled: only one of them may lead to the service" -}}
{{- end -}}
{{- $ports := values .Values.ports -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- include "holdfast.refuse" "ports.http, ports.grpc and ports.admin must differ" -}}
{{- end -}}
{{- if and .Values.telemetry.otlpEndpoint (not (regexMatch ":[0-9]+$" .Values.telemetry.otlpEndpoint)) -}}
{{- include "holdfast.refuse" "telemetry.otlpEndpoint must end in its port, which the network policy opens" -}}
{{- end -}}
{{- end }}
