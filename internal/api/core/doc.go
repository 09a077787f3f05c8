// Package core describes the kinds of core/v1, the group that has no name.
//
// A kind's file holds its descriptor, defaults, resets, checks and columns. The
// pod is half of the package: pod*.go are the object, spec*.go what every pod
// spec has, a template's too. What is checked, warned of and printed is written
// down in testdata, where each rule has a case that can be read.
package core
