module constellation.internal/artifacts/google-nvme-id

go 1.26.0
