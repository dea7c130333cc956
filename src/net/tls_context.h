// OpenSSL contexts for server and client: TLS 1.2 and up, HTTP/1.1 by ALPN.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "base/result.h"

namespace spillway::net {

using TlsContext = std::shared_ptr<boost::asio::ssl::context>;

Result<TlsContext> make_server_tls(const std::string& certificate_file, const std::string& key_file);

// ca_file empty: the system's roots. Verification of the name is set for each connection.
Result<TlsContext> make_client_tls(const std::string& ca_file, bool verify);

}  // namespace spillway::net
