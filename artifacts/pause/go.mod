module constellation.internal/artifacts/pause

go 1.26.0
