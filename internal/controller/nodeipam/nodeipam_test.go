package nodeipam

import (
	"net/netip"
	"testing"
)

func TestFree(t *testing.T) {
	for _, c := range []struct {
		in    string
		size  int
		taken []string
		want  string
	}{
		{"10.42.0.0/16", 24, nil, "10.42.0.0/24"},
		{"10.42.0.0/16", 24, []string{"10.42.0.0/24", "10.42.1.0/24"}, "10.42.2.0/24"},
		{"10.42.0.0/23", 24, []string{"10.42.0.0/24", "10.42.1.0/24"}, ""},
		{"10.42.0.0/16", 24, []string{"10.42.0.0/23"}, "10.42.2.0/24"},
		{"255.255.255.0/24", 24, []string{"255.255.255.0/24"}, ""},
		{"fd00::/48", 64, []string{"fd00::/64"}, "fd00:0:0:1::/64"},
		{"10.42.0.0/24", 16, nil, ""},
	} {
		taken := map[netip.Prefix]bool{}
		for _, p := range c.taken {
			taken[netip.MustParsePrefix(p)] = true
		}
		got, ok := Free(netip.MustParsePrefix(c.in), c.size, taken)
		if text := got.String(); ok != (c.want != "") || ok && text != c.want {
			t.Errorf("Free(%s, %d, %v) = %s, %v; want %q", c.in, c.size, c.taken, text, ok, c.want)
		}
	}
}
