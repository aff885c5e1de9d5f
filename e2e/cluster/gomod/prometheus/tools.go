//go:build tools

// Package prometheus pins Prometheus and promtool: go.mod names their version, go.sum their content.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
