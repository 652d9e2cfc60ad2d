// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "k8s.io/cloud-provider-openstack/cmd/cinder-csi-plugin"
	_ "k8s.io/cloud-provider-openstack/cmd/openstack-cloud-controller-manager"
)
