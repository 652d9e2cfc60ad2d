// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "sigs.k8s.io/gcp-compute-persistent-disk-csi-driver/cmd/gce-pd-csi-driver"
)
