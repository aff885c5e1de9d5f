{{/* Name of the operator's objects in the release's namespace. */}}
{{- define "tunewright.operator" -}}
tunewright-operator
{{- end -}}

{{/* Name of the operator's cluster-wide objects. One installation per cluster: the CRDs are cluster-wide, too. */}}
{{- define "tunewright.clusterName" -}}
tunewright-operator
{{- end -}}

{{/* What the Deployment and the Service select by; never changes. */}}
{{- define "tunewright.selectorLabels" -}}
app.kubernetes.io/name: tunewright
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object. */}}
{{- define "tunewright.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: tunewright
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tunewright
{{- end -}}
