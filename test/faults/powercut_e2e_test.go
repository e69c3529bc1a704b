//go:build linux && e2e

package faults_test

import "testing"

// TestTenPowerCuts is [TestPowerCut] ten times.
func TestTenPowerCuts(t *testing.T) { powerCuts(t, 10, deskConfig{}) }

// TestTenPowerCutsOffline is [TestPowerCutOffline] ten times.
func TestTenPowerCutsOffline(t *testing.T) { powerCuts(t, 10, deskConfig{NATS: nobody}) }
