module constellation.internal/artifacts/cloud-follow

go 1.26.0
