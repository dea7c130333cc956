// The endpoints. Each answers the exchange it is given; the router has checked method and key.
#pragma once

#include <boost/asio/awaitable.hpp>

#include "server/http/exchange.h"

namespace spillway::server {

asio::awaitable<void> chat_completions(Exchange& exchange);  // POST /v1/chat/completions
asio::awaitable<void> completions(Exchange& exchange);       // POST /v1/completions
asio::awaitable<void> beta_completions(
    Exchange& exchange);                                    // POST /beta/completions, /completions: DeepSeek's defaults
asio::awaitable<void> messages(Exchange& exchange);         // POST /v1/messages
asio::awaitable<void> count_tokens(Exchange& exchange);     // POST /v1/messages/count_tokens
asio::awaitable<void> list_models(Exchange& exchange);      // GET /v1/models
asio::awaitable<void> one_model(Exchange& exchange);        // GET /v1/models/{id}
asio::awaitable<void> feedback(Exchange& exchange);         // POST /v1/feedback
asio::awaitable<void> tokenize(Exchange& exchange);         // POST /tokenize
asio::awaitable<void> detokenize(Exchange& exchange);       // POST /detokenize
asio::awaitable<void> health(Exchange& exchange);           // GET /health
asio::awaitable<void> cached_prefixes(Exchange& exchange);  // GET /v1/cached_prefixes
asio::awaitable<void> health_live(Exchange& exchange);      // GET /health/live
asio::awaitable<void> health_ready(Exchange& exchange);     // GET /health/ready
asio::awaitable<void> metrics_text(Exchange& exchange);     // GET /metrics

// One-shot models.
asio::awaitable<void> embeddings(Exchange& exchange);        // POST /v1/embeddings
asio::awaitable<void> rerank(Exchange& exchange);            // POST /rerank: Cohere's, Jina's and TEI's shapes
asio::awaitable<void> score(Exchange& exchange);             // POST /score
asio::awaitable<void> classify(Exchange& exchange);          // POST /classify: texts, images
asio::awaitable<void> tei_embed(Exchange& exchange);         // POST /embed
asio::awaitable<void> tei_embed_all(Exchange& exchange);     // POST /embed_all
asio::awaitable<void> tei_embed_sparse(Exchange& exchange);  // POST /embed_sparse
asio::awaitable<void> tei_predict(Exchange& exchange);       // POST /predict
asio::awaitable<void> tei_decode(Exchange& exchange);        // POST /decode
asio::awaitable<void> tei_similarity(Exchange& exchange);    // POST /similarity
asio::awaitable<void> tei_info(Exchange& exchange);          // GET /info

// KServe's Open Inference Protocol v2 and Triton's extensions.
asio::awaitable<void> kserve_server(Exchange& exchange);          // GET /v2
asio::awaitable<void> kserve_live(Exchange& exchange);            // GET /v2/health/live
asio::awaitable<void> kserve_ready(Exchange& exchange);           // GET /v2/health/ready
asio::awaitable<void> kserve_model(Exchange& exchange);           // GET /v2/models/NAME[/versions/V]
asio::awaitable<void> kserve_model_ready(Exchange& exchange);     // GET .../ready
asio::awaitable<void> kserve_config(Exchange& exchange);          // GET .../config
asio::awaitable<void> kserve_statistics(Exchange& exchange);      // GET .../stats, /v2/models/stats
asio::awaitable<void> kserve_infer(Exchange& exchange);           // POST .../infer
asio::awaitable<void> kserve_index(Exchange& exchange);           // POST /v2/repository/index
asio::awaitable<void> kserve_load(Exchange& exchange);            // POST /v2/repository/models/NAME/load
asio::awaitable<void> kserve_unload(Exchange& exchange);          // POST /v2/repository/models/NAME/unload
asio::awaitable<void> kserve_no_regions(Exchange& exchange);      // GET /v2/systemsharedmemory/status, ...
asio::awaitable<void> kserve_forget_regions(Exchange& exchange);  // POST /v2/systemsharedmemory/unregister, ...

// TensorFlow Serving.
asio::awaitable<void> tf_predict(Exchange& exchange);   // POST /v1/models/NAME[/versions/V]:predict
asio::awaitable<void> tf_status(Exchange& exchange);    // GET /v1/models/NAME/versions/V
asio::awaitable<void> tf_metadata(Exchange& exchange);  // GET /v1/models/NAME/metadata

// The console.
asio::awaitable<void> front_page(Exchange& exchange);       // GET /
asio::awaitable<void> console_page(Exchange& exchange);     // GET /console
asio::awaitable<void> console_file(Exchange& exchange);     // GET /console/{file}
asio::awaitable<void> console_state(Exchange& exchange);    // GET /console/api/state
asio::awaitable<void> console_events(Exchange& exchange);   // GET /console/api/events
asio::awaitable<void> console_request(Exchange& exchange);  // GET /console/api/requests/{id}
asio::awaitable<void> console_trace(Exchange& exchange);    // POST /console/api/trace

}  // namespace spillway::server
