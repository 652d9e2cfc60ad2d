// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher"
)
