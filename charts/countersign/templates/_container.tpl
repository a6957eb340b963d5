{{- define "countersign.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "countersign.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What every container has; the argument is the root context. */}}
{{- define "countersign.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: kept
    mountPath: /var/lib/countersign
  - name: tmp
    mountPath: /tmp
{{- with .Values.secretSettings }}
envFrom:
  {{- range . }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The environment of every container; the argument is the root context. */}}
{{- define "countersign.environment" -}}
- name: COUNTERSIGN_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.existingSecret }}
      key: database-url
- name: COUNTERSIGN_BROKER_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.existingSecret }}
      key: broker-url
- name: COUNTERSIGN_STORE_URL
  value: file:/var/lib/countersign/instances
- name: COUNTERSIGN_HEALTH_HOST
  value: 0.0.0.0
- name: COUNTERSIGN_HEALTH_PORT
  value: "8081"
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
