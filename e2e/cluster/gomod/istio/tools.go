//go:build tools

// Package istio pins Istio's control plane and its analyser: go.mod names their version, go.sum their content.
package istio

import (
	_ "istio.io/istio/istioctl/cmd/istioctl"
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
