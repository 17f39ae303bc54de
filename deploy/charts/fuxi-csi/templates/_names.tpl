{{- /* What objects are called: fuxi-csi-cinder-controller, or with a suffix fuxi-csi-manila-controller-nfs. */ -}}
{{- define "fuxi-csi.prefix" -}}
fuxi-csi-{{ .Values.provider }}
{{- end -}}

{{- define "fuxi-csi.instance" -}}
{{ .Values.provider }}{{ .Values.nameSuffix }}
{{- end -}}

{{- define "fuxi-csi.driver" -}}
{{ .Values.driverName | default (printf "%s.fuxi.openstack.org" .Values.provider) }}
{{- end -}}

{{- define "fuxi-csi.healthPort" -}}
{{ .Values.node.healthPort | default (eq .Values.provider "manila" | ternary 29653 29652) }}
{{- end -}}
