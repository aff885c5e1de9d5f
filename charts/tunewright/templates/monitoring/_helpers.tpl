{{/* "true" where objects of the Prometheus operator are made, else nothing. */}}
{{- define "tunewright.prometheusOperator" -}}
{{- $wanted := .Values.monitoring.prometheusOperator -}}
{{- if or (eq $wanted "Enabled") (and (eq $wanted "Auto") (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
true
{{- end -}}
{{- end -}}

{{/* Labels of the objects that the Prometheus operator reads. */}}
{{- define "tunewright.monitoringLabels" -}}
{{ include "tunewright.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* How each of them is scraped. honorLabels: a sample's namespace is that of the object it tells of. */}}
{{- define "tunewright.endpoint" -}}
path: /metrics
interval: {{ .Values.monitoring.scrapeInterval }}
scrapeTimeout: {{ .Values.monitoring.scrapeInterval }}
honorLabels: true
{{- end -}}

{{/* Where our pods are. */}}
{{- define "tunewright.namespaceSelector" -}}
{{- with .Values.operator.watchNamespaces -}}
matchNames:
  {{- toYaml . | nindent 2 }}
{{- else -}}
any: true
{{- end -}}
{{- end -}}
