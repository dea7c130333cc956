#include "net/tls_context.h"

#include <openssl/ssl.h>

#include <array>

namespace spillway::net {
namespace {

namespace ssl = boost::asio::ssl;
using Code = boost::system::error_code;

constexpr unsigned char kAlpn[] = "\x08http/1.1";
constexpr unsigned kAlpnSize = sizeof(kAlpn) - 1;

int choose_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                unsigned offered_size, void*) {
  unsigned char* chosen = nullptr;
  const int found = ::SSL_select_next_proto(&chosen, out_size, kAlpn, kAlpnSize, offered, offered_size);
  *out = chosen;
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

Error tls_error(const std::string& what, const Code& code) { return invalid(what + ": " + code.message()); }

}  // namespace

Result<TlsContext> make_server_tls(const std::string& certificate_file, const std::string& key_file) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  Code code;
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  ::SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  context->use_certificate_chain_file(certificate_file, code);
  if (code) return tls_error("TLS certificate " + certificate_file + ": expected a PEM chain", code);
  context->use_private_key_file(key_file, ssl::context::pem, code);
  if (code) return tls_error("TLS key " + key_file + ": expected the PEM key of " + certificate_file, code);
  if (::SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return invalid("TLS key " + key_file + ": expected the key of " + certificate_file + ", found another one");
  }
  ::SSL_CTX_set_alpn_select_cb(context->native_handle(), choose_alpn, nullptr);
  return context;
}

Result<TlsContext> make_client_tls(const std::string& ca_file, bool verify) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  Code code;
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  ::SSL_CTX_set_alpn_protos(context->native_handle(), kAlpn, kAlpnSize);
  if (!verify) {
    context->set_verify_mode(ssl::verify_none, code);
    return context;
  }
  context->set_verify_mode(ssl::verify_peer, code);
  if (ca_file.empty()) {
    context->set_default_verify_paths(code);
    if (code) return tls_error("TLS roots of the system", code);
  } else {
    context->load_verify_file(ca_file, code);
    if (code) return tls_error("TLS roots " + ca_file + ": expected PEM certificates", code);
  }
  return context;
}

}  // namespace spillway::net
