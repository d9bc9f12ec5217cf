/** Certificates to pin, and not to pin. */
import { rootCertificates } from 'node:tls'

/** A CA certificate that is valid now. */
export const caPem: string = `${rootCertificates[0]}\n`

/** CN=vending.example.com, CA:FALSE, valid until 2049. */
export const notCaPem = `-----BEGIN CERTIFICATE-----
MIIBbDCCAROgAwIBAgIUOmc3kBbW2RT5ebo2Vw+QNrZMkS0wCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTdmVuZGluZy5leGFtcGxlLmNvbTAeFw0yNjExMjIwMjUyMjla
Fw00OTExMjEwMjUyMjlaMB4xHDAaBgNVBAMME3ZlbmRpbmcuZXhhbXBsZS5jb20w
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATyTQjGhHJC8z4jQ+qxTZ4CUl3Ezzes
sQdBUvK7BeYNeuyKTRNaTRMKIa85jTywDA5BudIBNSziv4NYkltWEGY2oy8wLTAM
BgNVHRMBAf8EAjAAMB0GA1UdDgQWBBSN/hMzWLasBc1GbAD9jRbfPMOtpzAKBggq
hkjOPQQDAgNHADBEAiBTcD7QWEu7quF/+cU5JaMwbCD/+Nr14EzIFOk6oVNT2gIg
SR0ty+56Dgrdgr2bcIsrcVUFlMuiQkEY2mQm/9AM//8=
-----END CERTIFICATE-----
`

/** CN=Expired CA, CA:TRUE, valid during 2020. */
export const expiredCaPem = `-----BEGIN CERTIFICATE-----
MIIBSjCB8aADAgECAgEBMAoGCCqGSM49BAMCMBUxEzARBgNVBAMMCkV4cGlyZWQg
Q0EwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAwWjAVMRMwEQYDVQQDDApF
eHBpcmVkIENBMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8k0IxoRyQvM+I0Pq
sU2eAlJdxM83rLEHQVLyuwXmDXrsik0TWk0TCiGvOY08sAwOQbnSATUs4r+DWJJb
VhBmNqMyMDAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUjf4TM1i2rAXNRmwA
/Y0W3zzDracwCgYIKoZIzj0EAwIDSAAwRQIhAM+TfK0YRvlBFSH7hElzEHs95SBo
qpuOarlslS/3nomkAiA874fN+wjgEtCYKywLgTlmRH+MgnLpkw0PqNL690L/Hw==
-----END CERTIFICATE-----
`
