// Command probe is the whole content of the image with which the cluster tests itself.
//
//	probe serve TEXT          answer every request on :8080 with TEXT
//	probe get URL             print what a URL answers
//	probe resolve NAME        print the addresses of a host name
//	probe api PATH            ask the cluster's API, as the pod's service account
//	probe write FILE BYTES    write that many bytes to a file
//	probe scrub DIRECTORY     remove everything in a directory
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("use: probe serve|get|resolve|api|write|scrub ARGUMENT"))
	}
	argument := os.Args[2]
	switch os.Args[1] {
	case "serve":
		serve(argument)
	case "get":
		client := &http.Client{Timeout: 10 * time.Second}
		show(client.Get(argument))
	case "resolve":
		addresses, err := net.LookupHost(argument)
		fail(err)
		fmt.Println(addresses)
	case "api":
		api(argument)
	case "write":
		size, err := strconv.Atoi(os.Args[3])
		fail(err)
		fail(os.WriteFile(argument, make([]byte, size), 0o644))
	case "scrub":
		entries, err := os.ReadDir(argument)
		fail(err)
		for _, entry := range entries {
			fail(os.RemoveAll(filepath.Join(argument, entry.Name())))
		}
	default:
		fail(fmt.Errorf("no such command: %s", os.Args[1]))
	}
}

func serve(text string) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() { <-ended; os.Exit(0) }()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) })
	fmt.Println("serving")
	fail(http.ListenAndServe(":8080", nil))
}

func api(path string) {
	token, err := os.ReadFile(account + "token")
	fail(err)
	authority, err := os.ReadFile(account + "ca.crt")
	fail(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	request, err := http.NewRequest("GET", "https://kubernetes.default.svc"+path, nil)
	fail(err)
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	show(client.Do(request))
}

func show(response *http.Response, err error) {
	fail(err)
	defer response.Body.Close()
	fmt.Println(response.StatusCode)
	_, err = io.Copy(os.Stdout, response.Body)
	fail(err)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}
