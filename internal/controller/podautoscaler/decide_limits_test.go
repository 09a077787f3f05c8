package podautoscaler

import (
	"math"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

// rules from a line: "pods VALUE/PERIOD", "percent VALUE/PERIOD", "select max|min|disabled",
// "window SECONDS", separated by commas.
func rules(t *testing.T, line string) *autoscalingv2.HPAScalingRules {
	t.Helper()
	r := &autoscalingv2.HPAScalingRules{SelectPolicy: ptr.To(autoscalingv2.MaxChangePolicySelect)}
	for word := range strings.SplitSeq(line, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(word), " ")
		number, after, _ := strings.Cut(value, "/")
		switch key {
		case "pods", "percent":
			p := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: atoi(t, number), PeriodSeconds: atoi(t, after)}
			if key == "percent" {
				p.Type = autoscalingv2.PercentScalingPolicy
			}
			r.Policies = append(r.Policies, p)
		case "select":
			r.SelectPolicy = ptr.To(map[string]autoscalingv2.ScalingPolicySelect{
				"max": autoscalingv2.MaxChangePolicySelect, "min": autoscalingv2.MinChangePolicySelect, "disabled": autoscalingv2.DisabledPolicySelect,
			}[value])
		case "window":
			r.StabilizationWindowSeconds = ptr.To(atoi(t, value))
		case "":
		default:
			t.Fatalf("%q", word)
		}
	}
	return r
}

func atoi(t *testing.T, text string) (n int32) {
	t.Helper()
	for _, c := range text {
		n = n*10 + (c - '0')
	}
	return n
}

func ago(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }

func TestBoundsOfPolicies(t *testing.T) {
	for _, c := range []struct {
		name     string
		rules    string
		up, down []change
		current  int32
		highest  int32
		fewest   int32
	}{
		{"by pods", "pods 4/60", nil, nil, 10, 14, 6},
		{"by percent", "percent 50/60", nil, nil, 10, 15, 5},
		{"percents are rounded so that it moves", "percent 10/60", nil, nil, 5, 6, 4},
		{"the furthest of several", "pods 4/60, percent 100/60", nil, nil, 10, 20, 0},
		{"the furthest of several, few", "pods 4/60, percent 100/60", nil, nil, 2, 6, -2},
		{"the nearest of several", "pods 4/60, percent 50/60, select min", nil, nil, 10, 14, 6},
		{"none at all", "pods 4/60, select disabled", nil, nil, 10, 10, 10},
		{"what was added counts", "pods 4/60", []change{{3, ago(30)}}, nil, 10, 11, 3},
		{"but not before the period", "pods 4/60", []change{{3, ago(60)}}, nil, 10, 14, 6},
		{"what was taken away counts", "pods 4/60", nil, []change{{3, ago(30)}}, 10, 17, 9},
		{"percents are of what the period began with", "percent 100/60", []change{{5, ago(10)}}, nil, 10, 10, 0},
		{"each period for itself", "pods 4/60, pods 10/600", []change{{2, ago(30)}, {5, ago(300)}}, nil, 20, 23, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &plan{history: history{up: c.up, down: c.down}}
			r := rules(t, c.rules)
			if got := p.highest(r, c.current, now); got != c.highest {
				t.Errorf("up to %d, not %d", got, c.highest)
			}
			if got := p.fewest(r, c.current, now); got != c.fewest {
				t.Errorf("down to %d, not %d", got, c.fewest)
			}
		})
	}
}

// limit asks for what comes of a wish.
func limit(s *snapshot, h history, wish int32) (int32, *plan) {
	s.history = h
	p := &plan{history: h}
	return p.limited(s, wish), p
}

func reasons(p *plan) string {
	var all []string
	for _, c := range p.status.Conditions {
		all = append(all, c.Reason+"="+string(c.Status))
	}
	return strings.Join(all, " ")
}

func TestLimitedWithoutBehaviours(t *testing.T) {
	for _, c := range []struct {
		name                       string
		current, least, most, wish int32
		past                       []recommendation
		want                       int32
		reasons                    string
	}{
		{"as it wishes", 3, 1, 10, 5, nil, 5, "ReadyForNewScale=True DesiredWithinRange=False"},
		{"not below the least", 3, 2, 10, 1, nil, 2, "ReadyForNewScale=True TooFewReplicas=True"},
		{"zero is below, too", 3, 1, 10, 0, nil, 1, "ReadyForNewScale=True TooFewReplicas=True"},
		{"not above the most", 6, 1, 10, 11, nil, 10, "ReadyForNewScale=True TooManyReplicas=True"},
		{"not more than twice", 7, 1, 100, 20, nil, 14, "ReadyForNewScale=True ScaleUpLimit=True"},
		{"but four at least", 1, 1, 100, 20, nil, 4, "ReadyForNewScale=True ScaleUpLimit=True"},
		{"twice is more than the most", 7, 1, 10, 20, nil, 10, "ReadyForNewScale=True TooManyReplicas=True"},
		{"a higher recommendation holds", 7, 1, 10, 2, []recommendation{{6, ago(100)}, {4, ago(10)}}, 6, "ScaleDownStabilized=True DesiredWithinRange=False"},
		{"for five minutes", 7, 1, 10, 2, []recommendation{{6, ago(301)}, {4, ago(300)}}, 4, "ScaleDownStabilized=True DesiredWithinRange=False"},
		{"a lower one does not", 3, 1, 10, 5, []recommendation{{1, ago(10)}}, 5, "ReadyForNewScale=True DesiredWithinRange=False"},
		{"a higher one is limited, too", 3, 1, 5, 2, []recommendation{{9, ago(10)}}, 5, "ScaleDownStabilized=True TooManyReplicas=True"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := snap(c.current, "")
			s.scaler.Spec.MinReplicas, s.scaler.Spec.MaxReplicas = &c.least, c.most
			n, p := limit(s, history{known: true, wanted: c.past}, c.wish)
			if n != c.want || reasons(p) != c.reasons {
				t.Errorf("%d %s, not %d %s", n, reasons(p), c.want, c.reasons)
			}
			if last := p.history.wanted[len(p.history.wanted)-1]; last.replicas != c.wish || last.at != now {
				t.Errorf("%+v is remembered", p.history.wanted)
			}
		})
	}
}

func TestLimitedWithBehaviours(t *testing.T) {
	const free = "pods 1000/15, percent 1000/15"
	for _, c := range []struct {
		name                       string
		up, down                   string
		current, least, most, wish int32
		history                    history
		want                       int32
		reasons                    string
	}{
		{"as it wishes", free, free, 3, 1, 100, 50, history{}, 50, "ReadyForNewScale=True DesiredWithinRange=False"},
		{"no change is always good", free, free, 30, 1, 10, 30, history{}, 30, "ReadyForNewScale=True DesiredWithinRange=False"},
		{"not above the most", free, free, 3, 1, 10, 50, history{}, 10, "ReadyForNewScale=True TooManyReplicas=True"},
		{"not below the least", free, free + ", window 0", 8, 4, 10, 1, history{}, 4, "ReadyForNewScale=True TooFewReplicas=True"},
		{"up at its rate", "pods 4/60", free, 3, 1, 100, 50, history{}, 7, "ReadyForNewScale=True ScaleUpLimit=True"},
		{"up at its rate and not above the most", "pods 9/60", free, 3, 1, 10, 50, history{}, 10, "ReadyForNewScale=True TooManyReplicas=True"},
		{"down at its rate", free, "pods 2/60, window 0", 8, 1, 100, 1, history{}, 6, "ReadyForNewScale=True ScaleDownLimit=True"},
		{"down at its rate and not below the least", free, "pods 7/60, window 0", 8, 2, 100, 1, history{}, 2, "ReadyForNewScale=True TooFewReplicas=True"},
		{"never up", "pods 4/60, select disabled", free, 3, 1, 100, 50, history{}, 3, "ReadyForNewScale=True ScaleUpLimit=True"},
		{"never down", free, "pods 4/60, select disabled, window 0", 8, 1, 100, 1, history{}, 8, "ReadyForNewScale=True ScaleDownLimit=True"},
		{"it has gone too far already", "pods 4/60", free, 20, 1, 100, 50, history{up: []change{{10, ago(5)}}}, 20, "ReadyForNewScale=True ScaleUpLimit=True"},
		{"it has gone down too far already", free, "pods 4/60, window 0", 5, 1, 100, 2, history{down: []change{{10, ago(5)}}}, 5, "ReadyForNewScale=True ScaleDownLimit=True"},
		{"up waits for its window", free + ", window 60", free, 3, 1, 100, 50, history{wanted: []recommendation{{10, ago(59)}, {3, ago(60)}}}, 10, "ScaleUpStabilized=True DesiredWithinRange=False"},
		{"down waits for its window", free, free + ", window 60", 50, 1, 100, 3, history{wanted: []recommendation{{10, ago(59)}, {50, ago(60)}}}, 10, "ScaleDownStabilized=True DesiredWithinRange=False"},
		{"down waits five minutes if nothing is said", free, free, 50, 1, 100, 3, history{wanted: []recommendation{{10, ago(299)}, {50, ago(300)}}}, 10, "ScaleDownStabilized=True DesiredWithinRange=False"},
		{"windows both ways: it stays where it is between them", free + ", window 60", free + ", window 60", 20, 1, 100, 30, history{wanted: []recommendation{{10, ago(10)}, {40, ago(20)}}}, 20, "ScaleUpStabilized=True DesiredWithinRange=False"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := snap(c.current, "")
			s.scaler.Spec.MinReplicas, s.scaler.Spec.MaxReplicas = &c.least, c.most
			s.scaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(t, c.up), ScaleDown: rules(t, c.down)}
			n, p := limit(s, c.history, c.wish)
			if n != c.want || reasons(p) != c.reasons {
				t.Errorf("%d %s, not %d %s", n, reasons(p), c.want, c.reasons)
			}
		})
	}
}

// Round after round with the same wish: how the number of replicas moves.
func TestStepsOfBehaviours(t *testing.T) {
	for _, c := range []struct {
		name     string
		up, down string
		from     int32
		wish     int32
		want     []int32
	}{
		{"the default up: four or twice in 15 s", "pods 4/15, percent 100/15", "", 1, 100, []int32{5, 10, 20, 40, 80, 100}},
		{"slowly", "pods 1/60", "", 1, 100, []int32{2, 2, 2, 2, 3, 3}},
		{"down by a tenth a minute", "", "percent 10/60, window 0", 100, 0, []int32{90, 90, 90, 90, 81, 81}},
		{"down at once", "", "percent 100/15, window 0", 100, 1, []int32{1, 1}},
		{"down after a window", "", "percent 100/15, window 30", 100, 1, []int32{100, 100, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			current, h := c.from, history{}.begun(c.from, now)
			for i, want := range c.want {
				s, _ := snap(current, "")
				s.now = now.Add(time.Duration(i) * period)
				s.scaler.Spec.MaxReplicas = 1000
				s.scaler.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(t, c.up), ScaleDown: rules(t, c.down)}
				n, p := limit(s, h, c.wish)
				if n != want {
					t.Fatalf("round %d: %d, not %d", i, n, want)
				}
				h = p.history
				if n != current {
					h = h.scaled(s.scaler.Spec.Behavior, current, n, s.now)
				}
				current = n
			}
		})
	}
}

func TestHistoryIsForgotten(t *testing.T) {
	h := history{}.begun(3, now).begun(7, now)
	if len(h.wanted) != 1 || h.wanted[0].replicas != 3 {
		t.Errorf("what was there first counts once: %+v", h)
	}
	b := &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	for i := range 1000 {
		at := now.Add(time.Duration(i) * period)
		h = h.recommended(int32(i), at).scaled(b, 1, 2, at).scaled(b, 2, 1, at)
	}
	if most := int(longest/period) + 1; len(h.wanted) > most || len(h.up) > most || len(h.down) > most {
		t.Errorf("%d recommendations, %d and %d changes", len(h.wanted), len(h.up), len(h.down))
	}
	if len((history{}).scaled(nil, 1, 2, now).up) != 0 {
		t.Error("changes are kept although no behaviour asks for them")
	}
	if ceil(math.Inf(1)) != math.MaxInt32 {
		t.Error("more replicas than there can be")
	}
}
