// Package artifacts names the programs that are built from this module.
package artifacts

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
