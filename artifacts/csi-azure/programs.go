// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "sigs.k8s.io/azuredisk-csi-driver/pkg/azurediskplugin"
)
