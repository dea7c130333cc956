// HttpClient for programs without an event loop: runs one of its own until the response is whole.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "net/http_client.h"

namespace spillway::net {
namespace {

asio::awaitable<Result<ClientResponse>> exchange(HttpClient& client, ClientRequest request,
                                                 const std::function<bool(std::string_view)>& on_body) {
  auto stream = co_await client.open(std::move(request));
  if (!stream.ok()) co_return std::move(stream).error();
  ClientResponse response{(*stream)->status(), (*stream)->headers(), {}};
  const bool to_caller = on_body && response.status == 200;
  for (;;) {
    auto piece = co_await (*stream)->read();
    if (!piece.ok()) co_return std::move(piece).error();
    if (piece->empty()) co_return response;
    if (!to_caller) {
      response.body.append(*piece);
    } else if (!on_body(*piece)) {
      co_return response;
    }
  }
}

}  // namespace

Result<ClientResponse> fetch_blocking(ClientRequest request, const ClientOptions& options,
                                      const std::function<bool(std::string_view)>& on_body) {
  asio::io_context context(1);
  SW_ASSIGN(const auto client, HttpClient::create(context.get_executor(), options));
  Result<ClientResponse> result = Error{ErrorCode::kInternal, "the exchange ended without a result"};
  std::exception_ptr failure;
  const auto run = [&]() -> asio::awaitable<void> { result = co_await exchange(*client, std::move(request), on_body); };
  asio::co_spawn(context, run, [&](std::exception_ptr thrown) {
    failure = thrown;
    context.stop();  // timers of kept connections would hold it
  });
  context.run();
  if (failure) std::rethrow_exception(failure);
  return result;
}

}  // namespace spillway::net
