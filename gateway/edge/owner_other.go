//go:build !linux && !windows && !darwin

package edge

import (
	"errors"
	"os"
	"strconv"
)

func self() (osUser, error) {
	return osUser{id: strconv.Itoa(os.Geteuid())}, errors.ErrUnsupported
}

func owner(endpoints) (osUser, error) { return osUser{}, errors.ErrUnsupported }
