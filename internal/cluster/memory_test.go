package cluster

import (
	"fmt"
	"testing"
)

func TestCleanPages(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 1                           /bin/proa
Rss:                  12 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00600000 r--p 00100000 fe:00 1                           /bin/proa
Private_Dirty:         8 kB
Anonymous:             8 kB
00600000-00700000 rw-p 00200000 fe:00 1                           /bin/proa
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 2                   /lib/libc.so
Anonymous:             0 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Anonymous:             4 kB
`
	if got := fmt.Sprint(cleanPages(smaps, "/bin/proa")); got != "[{4194304 5242880}]" {
		t.Errorf("got %s: want the text alone, not what was relocated or can be written", got)
	}
}
