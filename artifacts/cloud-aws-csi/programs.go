// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "github.com/kubernetes-sigs/aws-ebs-csi-driver/cmd"
)
