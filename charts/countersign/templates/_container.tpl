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

{{/* What every container has; the argument has the root context, and whether DICOM TLS is spoken. */}}
{{- define "countersign.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
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
{{- if .dicomTls }}
  - name: dicom-tls
    mountPath: /etc/countersign/dicom-tls
    readOnly: true
{{- end }}
{{- with .root.Values.secretSettings }}
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

{{/* Where DICOM TLS finds its files, which are read again when the Secret changes. */}}
{{- define "countersign.dicomTlsEnvironment" -}}
- name: COUNTERSIGN_DICOM_TLS_CERTIFICATE
  value: /etc/countersign/dicom-tls/tls.crt
- name: COUNTERSIGN_DICOM_TLS_KEY
  value: /etc/countersign/dicom-tls/tls.key
- name: COUNTERSIGN_DICOM_TLS_AUTHORITIES
  value: /etc/countersign/dicom-tls/ca.crt
{{- end }}
