package pod

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Docker, ufw and others set the host's policy for forwarded packets to DROP.
// Ours must pass, and a rule in another table cannot overrule that, so rules go
// in front of theirs, marked with the cluster's name. Where nothing drops,
// nothing is added.

// firewalls are the programs for IPv4 and IPv6.
var firewalls = [...]struct {
	program string
	v6      bool
}{{"iptables", false}, {"ip6tables", true}}

func (d *Driver) firewallMark() string { return "proa-" + d.cfg.Cluster }

// passFirewall lets the pods' packets through.
func (d *Driver) passFirewall(ctx context.Context) error {
	var errs []error
	for _, f := range firewalls {
		if _, err := exec.LookPath(f.program); err != nil {
			continue // no firewall of this kind can have been set up
		}
		for chain, directions := range map[string][]string{"FORWARD": {"-s", "-d"}, "INPUT": {"-s"}} {
			rules, err := iptables(ctx, f.program, "-S", chain)
			if err != nil || !strings.HasPrefix(rules, "-P "+chain+" DROP") {
				continue
			}
			for _, c := range d.cfg.ClusterCIDRs {
				if c.Addr().Is6() != f.v6 {
					continue
				}
				for _, direction := range directions {
					rule := []string{chain, direction, c.String(), "-m", "comment", "--comment", d.firewallMark(), "-j", "ACCEPT"}
					if _, err := iptables(ctx, f.program, append([]string{"-C"}, rule...)...); err == nil {
						continue
					}
					if _, err := iptables(ctx, f.program, append([]string{"-I"}, rule...)...); err != nil {
						errs = append(errs, err)
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

// leaveFirewall removes our rules.
func (d *Driver) leaveFirewall(ctx context.Context) error {
	var errs []error
	for _, f := range firewalls {
		if _, err := exec.LookPath(f.program); err != nil {
			continue
		}
		for _, chain := range []string{"FORWARD", "INPUT"} {
			rules, err := iptables(ctx, f.program, "-S", chain)
			if err != nil {
				continue
			}
			for _, rule := range strings.Split(rules, "\n") {
				fields := strings.Fields(rule)
				for i, field := range fields {
					fields[i] = strings.Trim(field, `"`)
				}
				if len(fields) > 2 && fields[0] == "-A" && strings.Contains(strings.Join(fields, " ")+" ", "--comment "+d.firewallMark()+" ") {
					fields[0] = "-D"
					if _, err := iptables(ctx, f.program, fields...); err != nil {
						errs = append(errs, err)
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

func iptables(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, append([]string{"-w", "5"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
