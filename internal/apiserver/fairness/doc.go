// Package fairness decides which request is worked on next when there are more of
// them than the server should work on at once (API priority and fairness,
// KEP-1040): each belongs to a flow, each flow to a priority level, and a level
// has seats. While seats are free a request just takes one. When they are not, it
// waits in one of its level's queues, chosen so that a flow which sends much can
// only fill a few of them (shuffle sharding), and the queues take turns by what
// they used (start-time fair queuing). A queue that is full, or a wait that grows
// too long, ends in 429 with Retry-After.
//
// Levels lend seats that they do not use, up to their lendablePercent, and borrow
// up to their borrowingLimitPercent. Where upstream moves seats between levels by
// a clock, here each request is decided by what is in use at that moment, so that
// nothing runs while nobody asks, and a lender has its seats back as soon as those
// who borrowed end.
package fairness
