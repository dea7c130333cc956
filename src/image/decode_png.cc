#include <fmt/format.h>
#include <png.h>

#include "image/image.h"

namespace spillway::image {

// libpng's simplified API would gamma-correct 16-bit files and composite transparency; Pillow does neither, so the
// classic one it is.
namespace {

struct Source {
  std::string_view bytes;
  size_t at = 0;
  char message[128] = "";
};

void on_error(png_structp png, png_const_charp message) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  fmt::format_to_n(source->message, sizeof source->message - 1, "{}", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, size_t size) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->bytes.size() - source->at < size) png_error(png, "the file ends too soon");
  source->bytes.copy(reinterpret_cast<char*>(to), size, source->at);
  source->at += size;
}

// Everything with a destructor belongs to the caller, so that longjmp skips none.
bool read(png_structp png, png_infop info, const DecodeLimits& limits, Image& image, std::vector<png_bytep>& rows,
          Status& status) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_info(png, info);
  const png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  status = check_size(width, height, limits);
  if (!status.ok()) return true;
  png_set_expand(png);
  png_set_scale_16(png);
  png_set_strip_alpha(png);
  png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != size_t{3} * width) png_error(png, "an unknown layout of pixels");
  image.width = static_cast<int>(width);
  image.height = static_cast<int>(height);
  image.rgb.resize(size_t{3} * width * height);
  rows.resize(height);
  for (png_uint_32 y = 0; y < height; ++y) rows[y] = image.rgb.data() + size_t{3} * width * y;
  png_read_image(png, rows.data());
  png_read_end(png, nullptr);
  return true;
}

}  // namespace

Result<Image> decode_png(std::string_view bytes, const DecodeLimits& limits) {
  Source source{bytes};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, on_error, on_warning);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  SW_CHECK(info != nullptr, "libpng has no memory");
  png_set_read_fn(png, &source, on_read);
  png_set_user_limits(png, limits.side_max, limits.side_max);
  png_set_chunk_malloc_max(png, 8 << 20);
  Image image;
  std::vector<png_bytep> rows;
  Status status;
  const bool read_whole = read(png, info, limits, image, rows, status);
  png_destroy_read_struct(&png, &info, nullptr);
  if (!read_whole) return corrupt(fmt::format("PNG of {} bytes: {}", bytes.size(), source.message));
  SW_TRY(status);
  return image;
}

}  // namespace spillway::image
