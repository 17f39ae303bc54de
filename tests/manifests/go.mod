module manifests

go 1.26.0
