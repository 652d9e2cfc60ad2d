// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "k8s.io/cloud-provider-aws/cmd/aws-cloud-controller-manager"
)
