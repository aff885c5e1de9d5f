//go:build tools

// Package tools pins the programs beside the cluster: go.mod names their version, go.sum their content.
// They share one module because all three can be built on one release of the Kubernetes client libraries,
// which then are compiled once.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
