// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "sigs.k8s.io/cloud-provider-azure/cmd/cloud-controller-manager"
)
