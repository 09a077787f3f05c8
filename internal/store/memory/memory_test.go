package memory_test

import (
	"testing"

	"github.com/proa-dev/proa/internal/store"
	"github.com/proa-dev/proa/internal/store/memory"
	"github.com/proa-dev/proa/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return memory.New() })
}
