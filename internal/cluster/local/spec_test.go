package local

import (
	"strings"
	"testing"
)

// Clusters side by side share no port, range or name.
func TestClustersMeetNowhere(t *testing.T) {
	var all []*Spec
	seen := map[any]string{}
	for i := range slots {
		s := &Spec{Name: "c" + strings.Repeat("x", i)}
		if err := s.complete(all); err != nil {
			t.Fatal(err)
		}
		for _, part := range []any{
			s.DataDir, s.APIPort, s.HTTPPort, s.HTTPSPort, s.Kubelet, s.bridge(), s.bridgeRange(), s.serviceRange(), s.podRange(),
			s.nodePorts(), s.natTable(), s.netns(2), s.veth(2), s.cgroup(1), s.cgroup(2), s.Context(),
		} {
			if other, taken := seen[part]; taken {
				t.Errorf("%s and %s share %v", other, s.Name, part)
			}
			seen[part] = s.Name
		}
		for _, link := range []string{s.bridge(), s.veth(99)} {
			if len(link) > 15 {
				t.Errorf("the kernel takes no link name as long as %s", link)
			}
		}
		all = append(all, s)
	}
	if err := (&Spec{Name: "more"}).complete(all); err == nil || !strings.Contains(err.Error(), "proa delete") {
		t.Error(err)
	}
}

func TestFreedSlotIsUsedAgain(t *testing.T) {
	s := &Spec{Name: "b"}
	if err := s.complete([]*Spec{{Name: "a", Slot: 0}, {Name: "c", Slot: 2}}); err != nil || s.Slot != 1 {
		t.Errorf("slot %d, %v", s.Slot, err)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"proa": true, "a": true, "a-1": true, "": false, "A": false, "-a": false, "a_b": false, "a/b": false, "..": false, strings.Repeat("a", 21): false} {
		if (CheckName(name) == nil) != good {
			t.Errorf("%q: %v", name, CheckName(name))
		}
	}
}
