// A self-signed certificate for 127.0.0.1, made anew for a test: no key is ever committed.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <string>

#include "base/check.h"

namespace spillway::net {

inline void write_test_certificate(const std::string& certificate_file, const std::string& key_file) {
  EVP_PKEY* key = ::EVP_EC_gen("P-256");
  X509* certificate = ::X509_new();
  ::X509_set_version(certificate, 2);
  ::ASN1_INTEGER_set(::X509_get_serialNumber(certificate), 1);
  ::X509_gmtime_adj(::X509_getm_notBefore(certificate), -3600);
  ::X509_gmtime_adj(::X509_getm_notAfter(certificate), 3600);
  ::X509_set_pubkey(certificate, key);
  X509_NAME* name = ::X509_get_subject_name(certificate);
  const auto* text = reinterpret_cast<const unsigned char*>("spillway test");
  ::X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0);
  ::X509_set_issuer_name(certificate, name);
  X509_EXTENSION* address = ::X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "IP:127.0.0.1");
  ::X509_add_ext(certificate, address, -1);
  ::X509_EXTENSION_free(address);
  SW_CHECK(::X509_sign(certificate, key, ::EVP_sha256()) > 0, "the certificate can be signed");
  FILE* out = std::fopen(certificate_file.c_str(), "w");
  SW_CHECK(out && ::PEM_write_X509(out, certificate) == 1, "the certificate can be written");
  std::fclose(out);
  out = std::fopen(key_file.c_str(), "w");
  SW_CHECK(out && ::PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
           "the key can be written");
  std::fclose(out);
  ::X509_free(certificate);
  ::EVP_PKEY_free(key);
}

}  // namespace spillway::net
