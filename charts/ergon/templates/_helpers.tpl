{{- define "ergon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ergon.serviceAccountName" -}}
{{- default (include "ergon.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "ergon.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "ergon.selector" -}}
app.kubernetes.io/name: ergon
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "ergon.gatewayName" -}}
{{- printf "%s-gateway" (include "ergon.fullname" .) -}}
{{- end -}}

{{- define "ergon.leaderName" -}}
{{- printf "%s-leader" (include "ergon.fullname" .) -}}
{{- end -}}

{{- define "ergon.gatewaySelector" -}}
app.kubernetes.io/name: ergon
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* Labels of an object: of the operator, or of a component: include "ergon.labels" (dict "root" . "component" "gateway") */}}
{{- define "ergon.labels" -}}
{{- $root := default . .root -}}
{{ if eq (default "operator" .component) "gateway" }}{{ include "ergon.gatewaySelector" $root }}{{ else }}{{ include "ergon.selector" $root }}{{ end }}
app.kubernetes.io/part-of: ergon
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: include "ergon.metadata" (dict "root" . "name" "…" "namespace" "…" "labels" dict "annotations" dict) */}}
{{- define "ergon.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "ergon.labels" (dict "root" .root "component" .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What a role is bound to: the operator's own account. */}}
{{- define "ergon.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "ergon.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* What the gateway's roles are bound to. */}}
{{- define "ergon.gatewaySubjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "ergon.gatewayName" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* What the gateway reads in the namespaces of models: in one ClusterRole, or in a Role for each of watchNamespaces. */}}
{{- define "ergon.gatewayRules" -}}
- apiGroups: [ergon.dev]
  resources: [specializedmodels, taskroutes]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- end -}}

{{/* What the operator does in the namespaces of models: in one ClusterRole, or in a Role for each of watchNamespaces. */}}
{{- define "ergon.modelRules" -}}
# Read
- apiGroups: [ergon.dev]
  resources: [specializedmodels, taskroutes]
  verbs: [get, list, watch]
# Write: what the operator says of a model, and what it is reached by. Services and routes go with the model that owns them
- apiGroups: [ergon.dev]
  resources: [specializedmodels/status, taskroutes/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.rbac.restrictedEndpoints }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
{{- end }}
{{- if .Values.gatewayApi.enabled }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
