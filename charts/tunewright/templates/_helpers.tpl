{{/* Name of the operator's objects in the release's namespace: the release's, which names the product at least once. */}}
{{- define "tunewright.operator" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
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
