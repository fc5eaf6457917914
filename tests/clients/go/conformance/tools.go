//go:build tools

// Package tools names the suite, so that go.mod pins it and `go mod tidy` keeps it.
package tools

import _ "github.com/opencontainers/distribution-spec/conformance"
