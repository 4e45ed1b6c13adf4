// A back-end that answers every request at once with the same KServe v2 answer of 4 KB: what is measured is what stands before it.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	address, model := os.Args[1], os.Args[2]
	answer := fmt.Appendf(nil, `{"model_name":%q,"model_version":"1","outputs":[`+
		`{"name":"LABEL","datatype":"BYTES","shape":[1,1],"data":["en"]},`+
		`{"name":"CONFIDENCE","datatype":"FP32","shape":[1,1],"data":[0.93]},`+
		`{"name":"REST","datatype":"BYTES","shape":[1,1],"data":[%q]}]}`, model, strings.Repeat("y", 3840))
	log.Fatal(http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
	})))
}
