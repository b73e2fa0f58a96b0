{{- define "coordinator.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "coordinator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "coordinator.labels" -}}
{{ include "coordinator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "coordinator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What the daemons and the migration read alike; the Job's is a hook, since it runs first. */}}
{{- define "coordinator.configData" -}}
coordinator.toml: |
  {{- .Values.config | nindent 2 }}
{{- range $file, $text := .Values.entities }}
entities.{{ $file }}: |
  {{- $text | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The mapping's files lie in the folder `entities` beside coordinator.toml. */}}
{{- define "coordinator.volumes" -}}
- name: config
  configMap:
    name: {{ .configMap }}
    items:
      - {key: coordinator.toml, path: coordinator.toml}
      {{- range $file, $text := .root.Values.entities }}
      - {key: {{ printf "entities.%s" $file | quote }}, path: {{ printf "entities/%s" $file | quote }}}
      {{- end }}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- with .secret }}
- name: secrets
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.tlsSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "coordinator.mounts" -}}
- {name: config, mountPath: /etc/coordinator, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- with .secret }}
- {name: secrets, mountPath: /run/secrets/coordinator, readOnly: true}
{{- end }}
{{- if .root.Values.tlsSecret }}
- {name: tls, mountPath: /run/tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "coordinator.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.user }}
fsGroup: {{ .Values.user }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "coordinator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "coordinator.env" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* To DNS, and to those of the servers that have peers. */}}
{{- define "coordinator.egress" -}}
- to: {{- toYaml .root.Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    - {protocol: UDP, port: {{ .root.Values.networkPolicy.dns.port }}}
    - {protocol: TCP, port: {{ .root.Values.networkPolicy.dns.port }}}
{{- $root := .root }}
{{- range .servers }}
{{- $server := index $root.Values.networkPolicy.egress . }}
{{- /* An empty list of peers would mean everybody: then there is no rule at all. */}}
{{- if $server.to }}
- to: {{- toYaml $server.to | nindent 4 }}
  ports:
    {{- range $server.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}
