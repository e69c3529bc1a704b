//go:build !unix

package main

import (
	"context"
	"os/exec"
	"strconv"
)

// shell is a command line that is killed with its children when ctx ends.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "cmd", "/C", line)
	cmd.Cancel = func() error {
		kill := exec.CommandContext(context.WithoutCancel(ctx), "taskkill", "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid))
		if kill.Run() != nil {
			return cmd.Process.Kill()
		}
		return nil
	}
	return cmd
}
